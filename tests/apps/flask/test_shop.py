"""What the views do, by Flask's own client: what the server has to reproduce."""

import hashlib
import io
import tempfile
import unittest

from shop import create_app


class Views(unittest.TestCase):
    """Each of them once."""

    def setUp(self):
        data = tempfile.TemporaryDirectory()
        self.addCleanup(data.cleanup)
        app = create_app()
        app.config["SHOP_DATA"] = data.name
        self.client = app.test_client()

    def test_pages_and_static_files(self):
        self.assertIn(b"/static/site.css", self.client.get("/").data)
        with self.client.get("/static/site.css") as css:
            self.assertEqual(css.mimetype, "text/css")

    def test_the_session_is_a_cookie(self):
        for item in ["tea", "é"]:
            self.client.post("/api/cart", json={"item": item})
        self.assertEqual(self.client.get("/api/cart").json, {"cart": ["tea", "é"]})
        self.client.delete("/api/cart")
        self.assertEqual(self.client.get("/api/cart").json, {"cart": []})

    def test_streams_see_the_request(self):
        body = self.client.get("/api/stream?lines=2").data
        self.assertEqual(body, b"/api/stream 0\n/api/stream 1\n")

    def test_uploads_come_back(self):
        content = bytes(range(256)) * 1000
        digest = hashlib.sha256(content).hexdigest()
        form = {"title": "é", "file": (io.BytesIO(content), "a.bin")}
        answer = self.client.post("/api/upload", data=form)
        self.assertEqual((answer.status_code, answer.json["sha256"]), (201, digest))
        with self.client.get("/api/download/a.bin", headers={"Range": "bytes=1-3"}) as part:
            self.assertEqual((part.status_code, part.data), (206, b"\x01\x02\x03"))
        self.assertEqual(self.client.post("/api/raw", data=content).json["sha256"], digest)

    def test_errors_have_handlers(self):
        cases = [("/none", 404), ("/api/divide/1/0", 400), ("/api/cart/x", 404), ("/api/broken", 500)]
        for path, status in cases:
            answer = self.client.get(path)
            self.assertEqual((answer.status_code, answer.json["status"]), (status, status))
        self.assertEqual(self.client.post("/api/upload").status_code, 400)


if __name__ == "__main__":
    unittest.main()
