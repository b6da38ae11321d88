"""What a run costs: time, energy, money, memory."""
