"""Pruning of channels: layers become smaller, so that any kernel runs them faster."""

from .groups import ChannelGroup, ChannelGroups, Member, channel_groups
from .masked import masked_channels
from .plan import apply_channel_plan, channel_plan
from .prune import prune_channels

__all__ = [
    "ChannelGroup",
    "ChannelGroups",
    "Member",
    "apply_channel_plan",
    "channel_groups",
    "channel_plan",
    "masked_channels",
    "prune_channels",
]
