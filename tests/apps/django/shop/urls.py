"""Where everything is."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import path

from . import views

urlpatterns = [
    path("", views.home),
    path("products.json", views.products),
    path("visits", views.visits),
    path("private", views.private),
    path("stream", views.stream),
    path("upload", views.upload),
    path("download/<str:name>", views.download),
    path("broken", views.broken),
    path("accounts/login/", auth.LoginView.as_view(template_name="shop/login.html")),
    path("admin/", admin.site.urls),
]
