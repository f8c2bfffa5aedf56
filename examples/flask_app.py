"""A Flask app (WSGI). Run it:  pip install flask && duckfast flask_app:app"""

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return "<h1>Hello from Flask</h1>"


@app.post("/sum")
def add() -> Response:
    """curl -d '{"numbers": [1, 2, 3]}' -H 'Content-Type: application/json' http://127.0.0.1:8000/sum"""
    numbers = request.get_json()["numbers"]
    return jsonify(sum=sum(numbers))
