"""The parts of the module EMIMSegment. The Logic's face is :class:`EMIMSegmentLib.logic.EMIMSegmentLogic`."""
