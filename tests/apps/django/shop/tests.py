"""What the views do, by Django's own client: what the server has to reproduce."""

import hashlib
import tempfile

from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, TestCase, override_settings


class Views(TestCase):
    """Each of them once."""

    def test_pages_show_the_database(self):
        self.assertContains(self.client.get("/"), "<li>Product 1: 1</li>", html=True)
        answer = self.client.get("/products.json?q=product+1").json()
        self.assertEqual((answer["count"], answer["names"][0]), (12, "Product 1"))

    def test_the_session_counts(self):
        counts = [self.client.get("/visits").json()["visits"] for _ in range(3)]
        self.assertEqual(counts, [1, 2, 3])

    def test_login_opens_private_pages(self):
        User.objects.create_superuser("ada", password="secret")
        self.assertRedirects(self.client.get("/private"), "/accounts/login/?next=/private")
        form = {"username": "ada", "password": "secret", "next": "/private"}
        self.assertRedirects(self.client.post("/accounts/login/", form), "/private")
        self.assertEqual(self.client.get("/private").content, b"hello ada\n")
        self.assertContains(self.client.get("/admin/shop/product/"), "100 products")

    def test_streams_and_uploads(self):
        self.assertEqual(self.client.get("/stream?lines=2").getvalue(), b"line 0\nline 1\n")
        content = bytes(range(256)) * 1000
        with tempfile.TemporaryDirectory() as media, override_settings(MEDIA_ROOT=media):
            file = SimpleUploadedFile("a.bin", content)
            answer = self.client.post("/upload", {"title": "é", "file": file})
            self.assertEqual(answer.status_code, 201)
            self.assertEqual(answer.json()["sha256"], hashlib.sha256(content).hexdigest())
            self.assertEqual(answer.json()["title"], "é")

    def test_forms_need_their_token(self):
        client = Client(enforce_csrf_checks=True)
        self.assertEqual(client.post("/upload", {}).status_code, 403)

    def test_errors_are_500(self):
        client = Client(raise_request_exception=False)
        with self.assertLogs("django.request", "ERROR"):
            self.assertEqual(client.get("/broken").status_code, 500)
