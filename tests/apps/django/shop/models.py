"""What the shop sells."""

from django.db import models


class Product(models.Model):
    """An article."""

    name = models.CharField(max_length=80, unique=True)
    cents = models.PositiveIntegerField()

    class Meta:
        ordering = ["id"]

    def __str__(self):
        return self.name
