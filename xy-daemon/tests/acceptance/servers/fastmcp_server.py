"""A FastMCP server with one tool, on the port that PORT names."""

import os

from fastmcp import FastMCP

mcp = FastMCP("python-example")


@mcp.tool
def multiply(a: int, b: int) -> int:
    """Multiplies two numbers."""
    return a * b


if __name__ == "__main__":
    mcp.run(transport="http", host="127.0.0.1", port=int(os.environ["PORT"]))
