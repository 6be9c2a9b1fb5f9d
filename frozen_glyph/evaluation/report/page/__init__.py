"""The report as one HTML page: sections as plain data, charts as SVG, and the templates that give them their form."""
