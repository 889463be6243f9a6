"""How `roost plan` shows what it found."""

from roost_gateway.cli import show
from roost_gateway.client import Document


def show_plan(plan: Document) -> None:
    one, aim_ms = plan["one_replica"], 1000 * plan["p99_s"]
    more = " or more" if one["at_least"] else ""
    show.say(
        f"One replica of {plan['model']} holds {one['holds_rps']:.1f} requests/s{more} within {aim_ms:g} ms at the 99th "
        f"percentile (confidence {100 * plan['confidence']:g} %); one alone takes {1000 * one['service_s']:.1f} ms."
    )
    show.say(
        f"{plan['target_rps']:g} requests/s need {plan['replicas']} replicas: T/Q and a fifth on top, each rounded up."
    )
    if not plan["replicas_hold_target"]:
        show.say(
            f"But {plan['replicas']} replicas did not hold {plan['target_rps']:g} requests/s when it was tried: they share "
            "what they run on. Give them more cores, or plan for less."
        )
    show.say(f"Simulated over {plan['shape']}:")
    show.table(
        ["POLICY", "SECONDS LATE#", "MOST REPLICAS#", "REPLICA SECONDS#", "COLD STARTS#", f"COST {plan['currency']}#"],
        (
            (
                each["name"] + (" *" if each["name"] == plan["chosen"] else ""),
                f"{each['late_s']} of {each['loaded_s']}",
                each["most_replicas"],
                f"{each['replica_s']:,.0f}",
                each["cold_starts"],
                each["cost"],
            )
            for each in plan["candidates"]
        ),
    )
    options = " ".join(f"{name}={value}" for name, value in plan["policy"].items() if value is not None)
    show.say(f"{'Applied' if plan['applied'] else 'Best'}: {options}")
