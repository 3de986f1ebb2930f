"""The blueprint: one view for each thing an application server has to get right."""

import hashlib
import os

from flask import Blueprint, Response, abort, current_app, jsonify, request, send_from_directory
from flask import session, stream_with_context
from werkzeug.utils import secure_filename

blueprint = Blueprint("api", __name__)


@blueprint.route("/cart", methods=["GET", "POST", "DELETE"])
def cart():
    """A cart in the session, which is a signed cookie."""
    if request.method == "POST":
        session["cart"] = [*session.get("cart", []), request.get_json()["item"]]
    elif request.method == "DELETE":
        session.clear()
    return jsonify(cart=session.get("cart", []))


@blueprint.get("/stream")
def stream():
    """A body that still needs the request while it is made."""

    def body():
        try:
            for number in range(int(request.args["lines"])):
                yield f"{request.path} {number}\n"
        finally:
            print("stream closed", flush=True)

    return Response(stream_with_context(body()), mimetype="text/plain")


@blueprint.post("/upload")
def upload():
    """Takes a file from a form."""
    file = request.files.get("file") or abort(400)
    content = file.read()
    name = secure_filename(file.filename)
    with open(os.path.join(current_app.config["SHOP_DATA"], name), "wb") as kept:
        kept.write(content)
    digest = hashlib.sha256(content).hexdigest()
    return jsonify(name=name, size=len(content), sha256=digest, title=request.form.get("title")), 201


@blueprint.post("/raw")
def raw():
    """Reads the body as it comes, without a form around it."""
    digest, size = hashlib.sha256(), 0
    while chunk := request.stream.read(64 * 1024):
        digest.update(chunk)
        size += len(chunk)
    return jsonify(size=size, sha256=digest.hexdigest())


@blueprint.get("/download/<name>")
def download(name):
    """A file through `wsgi.file_wrapper`, with ranges and validators."""
    return send_from_directory(current_app.config["SHOP_DATA"], name, conditional=True)


@blueprint.get("/divide/<int:a>/<int:b>")
def divide(a, b):
    """Raises what has a handler of its own."""
    return jsonify(result=a // b)


@blueprint.get("/broken")
def broken():
    """Raises what has none."""
    raise RuntimeError("broken on purpose")


@blueprint.get("/broken-stream")
def broken_stream():
    """Raises when part of the body has been sent."""

    def body():
        yield "first\n"
        raise RuntimeError("broken half-way")

    return Response(body(), mimetype="text/plain")
