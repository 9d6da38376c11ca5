"""One peer per file; a new file is a new peer.

A peer has ``NAME``, the ``KINDS`` of cases it can compute, ``SLOW`` (only with ``--slow``) and
``make(case)``, which returns the call to time or raises ``UnavailableError`` with the reason.
``OWN_THREADS = True`` says that its threads are not torch's, so that they fall asleep before others
are timed. Exporting, compiling and packing belong into ``make``, which is not timed.
"""
