"""What the job's process can do: one file per kind of assignment, each with `do`."""
