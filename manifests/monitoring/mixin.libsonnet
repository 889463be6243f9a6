// Dashboards, recording rules and alerts as a monitoring mixin, for those who build their monitoring with Jsonnet. What it names
// are the files beside it; Triton's names (rules/triton.yaml) are an option and left out.
local groups(files) = { groups+: std.flatMap(function(file) std.parseYaml(file).groups, files) };
{
  grafanaDashboards+:: {
    'roost-autoscaling.json': import 'dashboards/autoscaling.json',
    'roost-drift.json': import 'dashboards/drift.json',
    'roost-model.json': import 'dashboards/model.json',
    'roost-money.json': import 'dashboards/money.json',
    'roost-overview.json': import 'dashboards/overview.json',
    'roost-tenant.json': import 'dashboards/tenant.json',
  },
  prometheusRules+:: groups([
    importstr 'rules/knative.yaml',
    importstr 'rules/objective.yaml',
    importstr 'rules/replicas.yaml',
    importstr 'rules/requests.yaml',
  ]),
  prometheusAlerts+:: groups([
    importstr 'alerts/drift.yaml',
    importstr 'alerts/gateway.yaml',
    importstr 'alerts/metering.yaml',
    importstr 'alerts/objective.yaml',
    importstr 'alerts/quotas.yaml',
    importstr 'alerts/scaling.yaml',
  ]),
}
