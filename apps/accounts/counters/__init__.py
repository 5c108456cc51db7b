"""Where uses are added up: in Redis for all nodes, in a file for the processes of one."""
