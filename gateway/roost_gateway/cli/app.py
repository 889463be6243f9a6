"""The commands of `roost`, in the order in which one needs them."""

import typer

from roost_gateway.cli import (
    bill,
    budget,
    deploy,
    doctor,
    drift,
    keys,
    loadtest,
    logs,
    models,
    money,
    plan,
    predict,
    prices,
    reconcile,
    rollout,
    serve,
    shadow,
    tenants,
    traffic,
    usage,
)
from roost_gateway.cli.session import shared_options

# Without rich's help pages `roost --help` takes half as long; without its tracebacks no variable is ever printed.
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
app.callback(epilog="Example: roost serve")(shared_options)
app.add_typer(serve.app)
app.add_typer(doctor.app)
app.add_typer(tenants.app, name="tenant")
app.add_typer(keys.app, name="key")
app.add_typer(deploy.app)
app.add_typer(predict.app)
app.add_typer(loadtest.app)
app.add_typer(plan.app)
app.add_typer(models.app)
app.add_typer(logs.app)
app.add_typer(traffic.app)
app.add_typer(shadow.app)
app.add_typer(rollout.app)
app.add_typer(drift.app, name="drift")
app.add_typer(usage.app)
app.add_typer(bill.app, name="bill")
app.add_typer(budget.app, name="budget")
app.add_typer(prices.app, name="prices")
app.add_typer(money.app)
app.add_typer(reconcile.app)
