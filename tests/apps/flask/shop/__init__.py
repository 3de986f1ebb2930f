"""A small shop in Flask: blueprint, session, streams, uploads, error handlers."""

import os

from flask import Flask, jsonify, render_template
from werkzeug.exceptions import HTTPException

from . import api


def create_app():
    """What the server calls: `module = shop:create_app()`."""
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY=os.environ.get("SHOP_SECRET", "for tests only"),
        # Uploads are kept here.
        SHOP_DATA=os.environ.get("SHOP_DATA", "/tmp"),
        MAX_CONTENT_LENGTH=64 * 1024 * 1024,
    )
    app.register_blueprint(api.blueprint, url_prefix="/api")

    @app.get("/")
    def home():
        return render_template("home.html", pid=os.getpid())

    @app.errorhandler(HTTPException)
    def refused(error):
        return jsonify(error=error.name, status=error.code), error.code

    @app.errorhandler(ZeroDivisionError)
    def divided_by_zero(error):
        return jsonify(error=str(error), status=400), 400

    return app
