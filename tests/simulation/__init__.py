"""The whole protocol, simulated: the real code of many processes in one seeded world."""
