"""What a step, an action chunk and a batch cost on this machine, beside what the arithmetic says they must."""
