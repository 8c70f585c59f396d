"""Scores short-video captions with Structured Streaming: a folder of JSON lines in, Parquet out.

    spark-submit spark_job.py --input incoming/ --output scored/ --checkpoint state/ --gateway 127.0.0.1:8001

One JSON object a line: {"video_id", "minio_video_path", "clean_text", "csv_label", "timestamp"}. With Kafka only the source differs.
With --clips text and clip are scored together; the gateway fetches the clips, if it is set up to.
Each row comes out once, with the version that scored it; the checkpoint and the Parquet sink see to it across restarts.
"""

import argparse

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from modelgate.spark import output_schema, scorer

SCHEMA = "video_id string, minio_video_path string, clean_text string, csv_label string, timestamp string"


def verdict() -> Column:
    """A word for a narrow column. Without a decision there is none, as where a clip is missing: null, never "safe"."""
    return F.when(F.col("decision") == "AT_OR_ABOVE_THRESHOLD", "harmful").when(F.col("decision") == "BELOW_THRESHOLD", "safe")


def score(rows: DataFrame, gateway: str, clips: bool = False) -> DataFrame:
    """The rows with the columns of their verdict."""
    how = {"text": "clean_text"}
    if clips:
        rows = rows.withColumn("clip", F.concat(F.lit("s3://"), F.col("minio_video_path")))
        how |= {"video": "clip", "model": "fusion"}
    scored = rows.mapInPandas(scorer(gateway, **how), schema=output_schema(rows.schema))
    return scored.withColumn("verdict", verdict()).drop("clip")


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a folder of JSON lines.")
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--gateway", default="127.0.0.1:8001")
    parser.add_argument("--clips", action="store_true", help="score text and clip together, with the fusion")
    parser.add_argument("--files-per-trigger", type=int, default=8)
    parser.add_argument("--once", action="store_true", help="score what is there and end")
    args = parser.parse_args()

    spark = SparkSession.builder.appName("modelgate").getOrCreate()
    rows = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", args.files_per_trigger).json(args.input)
    stream = score(rows, args.gateway, args.clips).writeStream.format("parquet")
    writer = stream.option("path", args.output).option("checkpointLocation", args.checkpoint)
    query = (writer.trigger(availableNow=True) if args.once else writer).start()
    query.awaitTermination()


if __name__ == "__main__":
    main()
