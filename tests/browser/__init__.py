"""Pages in a real browser, without a driver: headless Chromium renders a file and gives its DOM or a picture of it."""
