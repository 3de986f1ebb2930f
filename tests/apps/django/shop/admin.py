"""The products in Django's admin."""

from django.contrib import admin

from .models import Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """Name and price, to be searched."""

    list_display = ["name", "cents"]
    search_fields = ["name"]
