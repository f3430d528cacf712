"""What Prometheus reads at ``/metrics``: the counts of all API processes, and the state of every part."""
