"""What report.html is made of: template, style and script, the charts, and what the page shows."""
