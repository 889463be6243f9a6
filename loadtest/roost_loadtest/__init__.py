"""The load tester that proves autoscaling: open-loop arrivals, latency from the due time, a verdict, a report."""
