"""What stage POLICY stands on: rules as data, exceptions, the decision, and the words in which it is
signed.

``rules`` decides and knows nothing but what it is given. ``document`` reads a policy, ``cel`` asks its
rules about a package, ``facts`` says what they can ask about, ``verdict`` writes the decision with its
trace as a verification summary. A rule that errs is no answer: ``PolicyError``, and the stage has failed.
"""
