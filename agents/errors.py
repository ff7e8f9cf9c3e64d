"""Errors whose text is all that a user needs: what came, what is allowed, what to do."""

from __future__ import annotations


class UserError(Exception):
    """What a command says in a sentence, without a traceback."""
