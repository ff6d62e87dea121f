// Package superset holds the test with Apache Superset, which reads a lake while a stream writes it.
package superset
