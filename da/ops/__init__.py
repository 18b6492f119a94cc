"""Pure functions that several parts use: seeds, schedules, entropies, gradient reversal."""
