"""Web pages that show ML Metadata and never write to it. All but charts and explanations work without JavaScript."""
