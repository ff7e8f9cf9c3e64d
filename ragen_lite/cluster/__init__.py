"""Several processes, on one machine or many: players, and learners that learn as one."""
