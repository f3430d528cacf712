"""What Prometheus reads at ``/metrics``: what each process counts, the sums of all processes, and the state of parts."""
