"""Advantages, losses, filters, penalties and corrections: pure, and blind to models and engines."""
