variable "project" {
  description = "Id of the project in which everything is made."
  type        = string
}

variable "region" {
  description = "Region of bucket and key."
  type        = string
  default     = "europe-west1"
}

variable "name" {
  description = "Begins the names of service accounts and key."
  type        = string
  default     = "lake"
}

variable "bucket" {
  description = "Name of the bucket, unique in all of Google Cloud."
  type        = string
}

variable "tables" {
  description = "Tables of the lake file, as their folders below processed/ are named."
  type        = list(string)
  default     = ["unified-events", "quarantine"]
}

variable "old_version_days" {
  description = "Days that overwritten and deleted objects are kept as old versions: how long a mistake can be undone."
  type        = number
  default     = 30
}

variable "streaming_days" {
  description = "Days that the archive below raw/streaming/ is kept; 0: for ever."
  type        = number
  default     = 0
}

variable "topic" {
  description = "Pub/Sub topic of live events; the streaming role reads its subscription <topic>-lake."
  type        = string
  default     = "crypto_trades"
}

variable "impersonators" {
  description = "Members that may act as the service accounts, such as user:ana@example.org."
  type        = list(string)
  default     = []
}
