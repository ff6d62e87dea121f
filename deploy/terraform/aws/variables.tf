variable "name" {
  description = "Begins the names of roles, key and cluster."
  type        = string
  default     = "lake"
}

variable "bucket" {
  description = "Name of the bucket, unique in all of AWS."
  type        = string
}

variable "tables" {
  description = "Tables of the lake file, as their folders below processed/ are named."
  type        = list(string)
  default     = ["unified-events", "quarantine"]
}

variable "trusted_principals" {
  description = "ARNs that may assume the roles: users, instance roles, or the roots of accounts. Empty: whoever the account's own policies let."
  type        = list(string)
  default     = []
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

variable "destroy_with_data" {
  description = "Let terraform destroy delete a bucket that holds objects."
  type        = bool
  default     = false
}

variable "dynamodb_commits" {
  description = "Make the table through which Spark and Cauce commit to the same tables (store.commit: dynamodb)."
  type        = bool
  default     = false
}

variable "kafka" {
  description = "The Kafka cluster (Amazon MSK) for live events; null: none. Two or three subnets in as many zones, and the security groups that may reach the brokers."
  type = object({
    vpc_id          = string
    subnets         = list(string)
    security_groups = list(string)
    version         = optional(string, "3.8.x")
    instance_type   = optional(string, "kafka.t3.small")
    disk_gb         = optional(number, 100)
    topic           = optional(string, "crypto_trades")
  })
  default = null
}
