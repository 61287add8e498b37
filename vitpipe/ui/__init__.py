"""Web pages that show ML Metadata and never write to it. They need no script in the browser."""
