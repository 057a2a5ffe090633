"""Contexts in an order, as time points or doses: does the EC50 or the amplitude change along with their numbers?"""
