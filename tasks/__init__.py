"""What is trained (the tasks), and the command line around it."""
