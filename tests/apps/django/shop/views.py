"""One view for each thing an application server has to get right."""

import hashlib
import os
from pathlib import Path

from django.contrib.auth.decorators import login_required
from django.core.files.storage import default_storage
from django.db import connection
from django.db.models import Sum
from django.http import FileResponse, Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET

from .models import Product


@require_GET
def home(request):
    """A page from a template, with products from the database."""
    return render(request, "shop/home.html", {"products": Product.objects.all()[:10]})


@require_GET
def products(request):
    """Several queries, as JSON."""
    found = Product.objects.filter(name__icontains=request.GET.get("q", ""))
    return JsonResponse(
        {
            "count": found.count(),
            "cents": found.aggregate(sum=Sum("cents"))["sum"],
            "names": [product.name for product in found[:5]],
            "pid": os.getpid(),
        }
    )


def visits(request):
    """Counts in the session, which is in the database and known by a cookie."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"], "pid": os.getpid()})


@login_required
def private(request):
    """Only for those who have logged in."""
    return HttpResponse(f"hello {request.user.username}\n", content_type="text/plain")


def stream(request):
    """A body that is made line by line; its length is not known before."""
    lines = int(request.GET.get("lines", "3"))

    def body():
        try:
            for number in range(lines):
                yield f"line {number}\n"
        finally:
            # Runs when the server closes the body, also for a client that has gone away.
            print(f"stream of {lines} lines closed", flush=True)

    return StreamingHttpResponse(body(), content_type="text/plain")


@ensure_csrf_cookie
def upload(request):
    """Takes a file, and keeps it under MEDIA_ROOT."""
    if request.method != "POST":
        return HttpResponse("send a file\n", content_type="text/plain")
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    file.seek(0)
    name = default_storage.save(os.path.basename(file.name), file)
    answer = {"name": name, "size": file.size, "sha256": digest.hexdigest()}
    return JsonResponse(answer | {"title": request.POST.get("title")}, status=201)


@require_GET
def download(request, name):
    """A file through `wsgi.file_wrapper`."""
    path = Path(default_storage.path(os.path.basename(name)))
    if not path.is_file():
        raise Http404(name)
    return FileResponse(path.open("rb"), as_attachment=True)


def broken(request):
    """Raises, with a connection to the database open."""
    connection.ensure_connection()
    raise RuntimeError("broken on purpose")
