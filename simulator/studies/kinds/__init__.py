"""Kinds of logs whose truth is known, right ones and wrong ones, and how an evaluation judges them."""
