"""What computing a frame would read (`explain`), and what it has read (`trace`)."""
