"""The process that looks after the model servers, and after nothing else. It knows neither Flask nor the database.

Where to begin: ``supervisor`` is the loop of one model server (check, start, watch, restart or give up),
``server_run`` watches one process from its start to its end, and ``hang_detection`` decides whether it hangs.

Threads: the main thread runs the loop of the first server. Each further server has a loop in a thread of its own
(``secondary_servers``). Each server process has one thread that reads its output and one that waits for its end
(``process``), and while caches are saved, one that saves them (``slot_cache``). Signal handlers and threads put events
into the queue of ``events``; only a loop decides what follows.
"""
