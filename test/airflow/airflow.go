// Package airflow runs the DAGs that Cauce renders on a real Apache Airflow, on the embedded engine and on Spark.
package airflow
