"""What the scripts beside this folder share: processes, servers, scenarios, one measurement, and its report."""
