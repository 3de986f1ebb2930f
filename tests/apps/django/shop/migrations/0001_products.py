"""The table of products, with a hundred of them."""

from django.db import migrations, models


def fill(apps, schema_editor):
    """Product 1 costs one cent, and so on."""
    product = apps.get_model("shop", "Product")
    product.objects.bulk_create(product(name=f"Product {n}", cents=n) for n in range(1, 101))


class Migration(migrations.Migration):
    """Creates and fills."""

    initial = True
    operations = [
        migrations.CreateModel(
            name="Product",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=80, unique=True)),
                ("cents", models.PositiveIntegerField()),
            ],
            options={"ordering": ["id"]},
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
