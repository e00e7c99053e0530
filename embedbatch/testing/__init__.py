"""Servers in memory for testing code that embeds, in virtual time if you like; and a script for real ones."""

from .conditions import Capacity, Latency, Outage
from .provider import Hosts, ProviderSimulator, RequestRecord
from .proxy import ScriptedProxy
from .quota import OtherClient, Quota
from .server import Received, Scripted, ScriptedServer

__all__ = [
    "Capacity",
    "Hosts",
    "Latency",
    "OtherClient",
    "Outage",
    "ProviderSimulator",
    "Quota",
    "Received",
    "RequestRecord",
    "Scripted",
    "ScriptedProxy",
    "ScriptedServer",
]
