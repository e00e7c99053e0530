"""A scripted server, for testing code that embeds: in memory, in virtual time if you like."""

from .server import Received, Scripted, ScriptedServer

__all__ = ["Received", "Scripted", "ScriptedServer"]
