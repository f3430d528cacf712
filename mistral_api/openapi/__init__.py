"""What the API says of itself: an OpenAPI 3.1 document made from its routes and the schemas its views load with.

``shapes`` builds JSON schemas, ``fields`` says what each field of the request schemas allows, ``answers`` what the
answers hold, ``operations`` ties both to the routes, and ``document`` puts the whole together.
"""
