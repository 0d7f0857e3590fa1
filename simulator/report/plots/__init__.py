"""The plots of the pages, by kind of result, and how every plot looks."""
