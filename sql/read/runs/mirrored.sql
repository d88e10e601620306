-- Which records of a host's journal have been copied. Locks: none.
SELECT seq FROM runbooks.journal WHERE chain = ANY (%(chains)s)
