"""Modelpress within other tools; each module needs the extra of its name (`modelpress[mlflow]`)."""
